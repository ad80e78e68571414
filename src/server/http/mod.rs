//! The http endpoint for the machines that look after us: `GET /health` for a load balancer or container runtime,
//! `GET /metrics` for Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};

/// Serves until `shutdown`. `metrics` renders the current figures in Prometheus' text format.
pub async fn serve_http(
    listener: TcpListener,
    metrics: impl Fn() -> String + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> Result<()> {
    let metrics = Arc::new(metrics);
    let app = Router::new()
        .route("/health", get(|| async { ([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}") }))
        .route(
            "/metrics",
            get(move || {
                let text = metrics();
                async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
            }),
        );
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|err| Error::new(Kind::Io, format!("the http endpoint failed: {err}")))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn health_and_metrics() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve_http(listener, || "rows_total 1\n".to_string(), shutdown.clone()));
        let health = get(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("{\"status\":\"ok\"}"), "{health}");
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("rows_total 1\n"), "{metrics}");
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
