"""Methods of explanation, one a file. `METHODS` is the one table of them; the first is the default."""

from __future__ import annotations

from coattn.explain.methods.attention import attention
from coattn.explain.methods.dependence import dependence
from coattn.explain.methods.rollout import rollout
from coattn.explain.methods.shapley import shapley
from coattn.explain.methods.surrogate import surrogate
from coattn.explain.methods.table import Method, Value

__all__ = ["METHODS", "Method", "Value"]

METHODS: dict[str, Method] = {
    "dependence": Method(
        title="what the answer depends on",
        passes="2n + 2, or 2^n up to 6 parts",
        weakness="Above 6 parts it sees no evidence that only three or more parts carry together.",
        source="Random-order values: Weber 1988; occlusion: Zeiler & Fergus 2014, arXiv 1311.2901",
        from_value=dependence,
    ),
    "attention": Method(
        title="where the answer was read",
        passes="1",
        weakness="It does not show what the answer depends on, and is blind to relations between parts.",
        source="Jain & Wallace 2019, arXiv 1902.10186",
        from_maps=attention,
    ),
    "rollout": Method(
        title="where the answer was read, followed back through the layers",
        passes="1",
        weakness="It ignores values, feed-forward layers and signs, and averages over heads.",
        source="Abnar & Zuidema 2020, arXiv 2005.00928",
        from_maps=rollout,
    ),
    "shapley": Method(
        title="what each part adds on average (Shapley values)",
        passes="8(n - 1) + 2",
        weakness="It is expensive, and noisy with 8 orders.",
        source="Castro et al. 2009, 10.1016/j.cor.2008.04.004",
        from_value=shapley,
    ),
    "surrogate": Method(
        title="a linear model of the answer",
        passes="64",
        weakness="It is noisy where there are more than about 30 parts, and assumes that effects add up.",
        source="Ribeiro et al. 2016, arXiv 1602.04938",
        from_value=surrogate,
    ),
}
