//! API clients: one connection pool a level of trust, one client an identity.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to an API server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How connections are made: TCP (through the environment's proxy where it says so), or the sandbox's in-memory pipe.
#[derive(Clone)]
pub enum Dialer {
    /// TCP.
    Tcp,
    /// Asks a function, which gets host and port.
    Pipe(PipeDialer),
}

/// Makes an in-memory stream to a host and port.
pub type PipeDialer = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync>;

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "Dialer::Tcp",
            Self::Pipe(_) => "Dialer::Pipe",
        })
    }
}
