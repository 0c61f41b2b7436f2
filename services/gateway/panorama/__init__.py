"""The Panorama API: its model in, gRPC out."""
