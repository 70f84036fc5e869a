"""What hides a face: dark glasses, a mask or scarf over the mouth, hands."""
