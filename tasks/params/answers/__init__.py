"""What a night predicts of a row beside one value: several days ahead."""
