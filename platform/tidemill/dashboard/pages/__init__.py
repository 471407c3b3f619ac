"""How it looks: one module a page. Only here NiceGUI is met; what is shown comes from `queries`, as plain values."""

__all__: list[str] = []
