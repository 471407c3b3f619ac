"""Features: definitions made from the spec, online rows, and the Feast stores over them."""
