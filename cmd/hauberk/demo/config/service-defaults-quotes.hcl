# Quotes are served by gRPC.
Kind     = "service-defaults"
Name     = "quotes"
Protocol = "grpc"
