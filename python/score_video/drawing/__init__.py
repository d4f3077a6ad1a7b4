"""Pictures: what a compression kept, and charts of what was measured."""
