//! [7] Batch, OTLP gRPC/HTTP, file, console.
