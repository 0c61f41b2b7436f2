"""The display: what applications show, as RTSP and as fragmented MP4 for browsers. Encoded once, and only while
somebody looks.
"""
