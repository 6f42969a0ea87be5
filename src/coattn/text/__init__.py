"""Questions to token ids, answers to normal forms and soft scores, and the vocabularies of both."""
