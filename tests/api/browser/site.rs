//! A web server of another origin.

use std::{future::IntoFuture, path::Path};

use axum::{
    Router,
    extract::{self, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Serves `examples/browser` below `/page`, and npm packages below `/packages`; stops when dropped.
pub(super) struct Site {
    pub(super) origin: String,
    task: JoinHandle<()>,
}

// === impl Site ===

impl Site {
    pub(super) async fn start(packages: &Path) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/browser");
        let router = Router::new()
            .route(
                "/page/{*path}",
                get(serve).with_state(page.as_path().into()),
            )
            .route(
                "/packages/{*path}",
                get(serve).with_state(packages.join("node_modules").as_path().into()),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let serving = axum::serve(listener, router).into_future();
        let task = tokio::spawn(async {
            let _ = serving.await;
        });
        Self { origin, task }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State(root): State<Box<Path>>,
    extract::Path(path): extract::Path<String>,
) -> Response {
    let mime = match path.rsplit_once('.') {
        Some((_, "html")) => "text/html",
        Some((_, "css")) => "text/css",
        Some((_, "js")) => "text/javascript",
        _ => "application/octet-stream",
    };
    match tokio::fs::read(root.join(path)).await {
        Ok(content) => ([(CONTENT_TYPE, mime)], content).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}
