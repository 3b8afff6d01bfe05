"""The miniature's images before the eyes of a real language model; docs/real_llm.md."""
