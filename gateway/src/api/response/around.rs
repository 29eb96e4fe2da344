//! Code around the handlers of all requests, as layers that allocate once per request.
//!
//! `axum::middleware::from_fn` clones the services below it into another box for each request, and
//! so do the layers around it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service, ServiceExt as _};

/// The frame of a request: it passes the request to [`run`], or answers it itself.
pub trait Around: Clone + Send + Sync + 'static {
    fn around<S: Below>(self, request: Request, below: S) -> impl Future<Output = Response> + Send;
}

/// The services below a layer: the handler and the layers around it.
pub trait Below:
    Service<Request, Response: IntoResponse, Error = Infallible, Future: Send> + Send + 'static
{
}

impl<S> Below for S where
    S: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send> + Send + 'static
{
}

/// Passes a request on.
pub async fn run<S: Below>(below: S, request: Request) -> Response {
    match below.oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    }
}

/// Returns the layer for a router.
pub fn layer<A: Around>(around: A) -> AroundLayer<A> {
    AroundLayer(around)
}

#[derive(Clone)]
pub struct AroundLayer<A>(A);

impl<A: Around, S> Layer<S> for AroundLayer<A> {
    type Service = Surrounded<A, S>;

    fn layer(&self, below: S) -> Self::Service {
        Surrounded { around: self.0.clone(), below: Arc::new(below) }
    }
}

/// The router clones its services for each request, so the services below are shared until they are called.
pub struct Surrounded<A, S> {
    around: A,
    below: Arc<S>,
}

impl<A: Clone, S> Clone for Surrounded<A, S> {
    fn clone(&self) -> Self {
        Surrounded { around: self.around.clone(), below: self.below.clone() }
    }
}

impl<A: Around, S: Below + Clone + Sync> Service<Request> for Surrounded<A, S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // [`run`] waits until the services below are ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let below = S::clone(&self.below);
        let around = self.around.clone();
        Box::pin(async move { Ok(around.around(request, below).await) })
    }
}
