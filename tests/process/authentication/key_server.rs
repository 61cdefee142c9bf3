//! An HTTP server for key sets.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap, routing::get};

/// The token that it asks for.
pub(super) const TOKEN: &str = "cluster";

/// A server whose document can be replaced.
#[derive(Clone, Default)]
pub(super) struct KeyServer(Arc<Mutex<Served>>);

#[derive(Default)]
struct Served {
    document: Vec<u8>,
    fetches: usize,
}

impl KeyServer {
    /// Starts the server. Returns the address of its document, `/keys`.
    pub(super) async fn start() -> (Self, SocketAddr) {
        let server = Self::default();
        let router = Router::new().route("/keys", get(Self::answer));
        let router = router.with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, address)
    }

    /// Replaces the document.
    pub(super) fn publish(&self, document: Vec<u8>) {
        self.0.lock().unwrap().document = document;
    }

    /// How often the document was fetched.
    pub(super) fn fetches(&self) -> usize {
        self.0.lock().unwrap().fetches
    }

    async fn answer(State(server): State<Self>, headers: HeaderMap) -> Vec<u8> {
        let mut served = server.0.lock().unwrap();
        served.fetches += 1;
        let expected = format!("Bearer {TOKEN}");
        match headers
            .get("authorization")
            .is_some_and(|token| *token == expected)
        {
            true => served.document.clone(),
            false => Vec::new(),
        }
    }
}
