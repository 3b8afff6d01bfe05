"""The made-up world of the miniature experiment: images, captions, texts and a tokenizer."""
