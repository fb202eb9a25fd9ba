"""What passes between coordinator and sites: the payload format, the protocol of a federation, compression."""
