"""What a recipe says: techniques, settings, published presets, and the nodes that offer them."""
