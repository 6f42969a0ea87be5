"""One request and one response, shared by the server, the web page and `coattn ask --json`.

`json_schema` describes both, and `docs/serving.md` shows it; `openapi_document` adds the paths of the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from coattn import __version__
from coattn.explain.answers import Answers

MAX_QUESTIONS, MAX_CHARACTERS, MAX_TOP_K = 64, 2000, 100

Name = Annotated[str, Meta(max_length=200)]
Place = Annotated[int, Meta(ge=0, le=100_000)]
Question = Annotated[str, Meta(min_length=1, max_length=MAX_CHARACTERS, description="A question in plain words.")]


class AskRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """Questions about one image. Give exactly one of `image` and `image_id`."""

    questions: Annotated[list[Question], Meta(min_length=1, max_length=MAX_QUESTIONS, description="The questions.")]
    image: Annotated[
        bytes | None, Meta(description="The bytes of an image file (JPEG, PNG, WebP, BMP, GIF or TIFF), in base64.")
    ] = None
    image_id: Annotated[Name | None, Meta(description="The id that an earlier response gave to an image.")] = None
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K, description="Number of answers to each question.")] = 5
    max_risk: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="Withhold answers unless at most this share of the answers given is wrong."),
    ] = None
    map: Annotated[
        Name | None,
        Meta(description='Explain each answer: "dependence" or another method, or the name of an attention map.'),
    ] = None
    head: Annotated[Place | None, Meta(description="The head of an attention map; the mean of all if absent.")] = None
    word: Annotated[Place | None, Meta(description="The place of the word whose row of a map is meant.")] = None
    region: Annotated[Place | None, Meta(description="The number of the region whose row of a map is meant.")] = None


class RankedAnswer(Struct, kw_only=True):
    """An answer with its calibrated confidence."""

    answer: str
    confidence: Annotated[float, Meta(ge=0, le=1, description="The probability that the answer is right.")]


class RegionValue(Struct, kw_only=True):
    """A region of the image and how much it matters."""

    box: Annotated[list[float], Meta(description="x1 y1 x2 y2, as shares of the width and height of the image.")]
    weight: Annotated[float, Meta(description="Its weight; negative where it speaks against the answer.")]


class WordValue(Struct, kw_only=True):
    """A word of the question and how much it matters."""

    word: str
    weight: float
    unknown: Annotated[bool, Meta(description="Whether the model does not know the word.")] = False


class MapChoice(Struct, kw_only=True):
    """An attention map that a request may name."""

    name: str
    heads: int
    rows: Annotated[str | None, Meta(description='"question", "regions" or "answer"; null for a single row.')]
    columns: Annotated[str, Meta(description='"question" or "regions".')]


class Explained(Struct, kw_only=True):
    """Which regions and words an answer depends on, or where an attention map looked."""

    method: Annotated[str, Meta(description="The method or the name of the map.")]
    answer: Annotated[str, Meta(description="The answer that is explained.")]
    signed: Annotated[bool, Meta(description="Whether weights can speak against the answer.")]
    uniform: Annotated[float | None, Meta(description="The weight of each region if all were equal; for maps.")] = None
    written: Annotated[list[str], Meta(description="The words of the answer, if the model wrote them one by one.")] = []
    regions: list[RegionValue] = []
    words: list[WordValue] = []
    picture: Annotated[str | None, Meta(description="The picture of the explanation, a PNG in base64.")] = None
    choices: Annotated[list[MapChoice], Meta(description="The attention maps of this model.")] = []


class AskedQuestion(Struct, kw_only=True, omit_defaults=False):
    """A question with its answers, or with the reason why they are withheld."""

    question: str
    answers: Annotated[list[RankedAnswer], Meta(description="The best answers, best first; empty if withheld.")]
    withheld: Annotated[bool, Meta(description="Whether the model says that it does not know.")] = False
    reasons: Annotated[list[str], Meta(description="A sentence for each reason to doubt the answers.")] = []
    unknown_words: Annotated[list[str], Meta(description="Words of the question that the model does not know.")] = []
    map: Explained | None = None


class AskResponse(Struct, kw_only=True):
    """The answers of one model to the questions about one image."""

    model: Annotated[str, Meta(description="The name of the model.")]
    image_id: Annotated[str, Meta(description="Ask again about this image by its id: it is not encoded again.")]
    width: int
    height: int
    results: Annotated[list[AskedQuestion], Meta(description="One for each question, in order.")]


class Problem(Struct, kw_only=True):
    """The body of every response whose status is not 200."""

    error: Annotated[str, Meta(description="The fault and how to mend it.")]


def asked_question(question: str, answers: Answers, explained: Explained | None = None) -> AskedQuestion:
    """A question and its answers, as the schema describes them."""
    return AskedQuestion(
        question=question,
        answers=[RankedAnswer(answer=text, confidence=confidence) for text, confidence in answers],
        withheld=answers.withheld,
        reasons=list(answers.reasons),
        unknown_words=list(answers.unknown_words),
        map=explained,
    )


def json_schema(types: Sequence[type] = (AskRequest, AskResponse, Problem)) -> dict[str, Any]:
    """The JSON Schema of the types, by name, with the types that they are made of."""
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return components


def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of the server."""

    def content(kind: type) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}

    problems = {"4XX": "The request cannot be answered.", "503": "The server is busy."}
    responses = {"200": {"description": "The answers.", "content": content(AskResponse)}}
    responses |= {status: {"description": text, "content": content(Problem)} for status, text in problems.items()}
    body = {"required": True, "content": content(AskRequest)}
    operation = {"summary": "Ask about an image.", "requestBody": body, "responses": responses}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "coattn", "version": __version__},
        "paths": {"/ask": {"post": operation}, "/models/{name}/ask": {"parameters": [name], "post": operation}},
        "components": {"schemas": json_schema()},
    }
