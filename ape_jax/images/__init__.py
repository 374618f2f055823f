"""Images: decoding, preparation for a tower, augmentation."""
