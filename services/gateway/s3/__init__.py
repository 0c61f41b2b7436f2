"""S3 as Panorama's clients use it: path style, over the blob store and StorageService's index."""
