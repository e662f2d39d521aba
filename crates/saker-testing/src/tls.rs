//! TLS in front of a plain server, as stunnel puts it there: the installed Valkey is built without it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

/// A proxy whose certificate is for `localhost` and its own authority. It serves until this process ends.
#[derive(Debug)]
pub struct TlsProxy {
    port: u16,
    folder: tempfile::TempDir,
}

impl TlsProxy {
    /// Starts the proxy on a free port, in front of the server on port `target` of this machine.
    ///
    /// # Errors
    /// Returns an error if no port is free, or no certificate can be made.
    pub fn start(target: u16) -> Result<Self> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let folder = tempfile::Builder::new().prefix("saker-tls-").tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), cert.pem())?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der())
            .map_err(|reason| anyhow::anyhow!("the key is not readable: {reason}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                std::thread::spawn(move || serve(client, config, target));
            }
        });
        Ok(Self { port, folder })
    }

    /// The port on `localhost`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority that vouches for its certificate, in PEM.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        Path::new(self.folder.path()).join("ca.pem")
    }
}

/// Forwards requests and replies in turn, which is enough for the stores' protocol: each block from the client gets its reply. The end of
/// either side ends both.
fn serve(client: TcpStream, config: Arc<ServerConfig>, target: u16) -> Option<()> {
    let mut server = TcpStream::connect(("127.0.0.1", target)).ok()?;
    let mut client = StreamOwned::new(ServerConnection::new(config).ok()?, client);
    let mut buffer = [0; 65_536];
    loop {
        let count = client.read(&mut buffer).ok().filter(|count| *count > 0)?;
        server.write_all(&buffer[..count]).ok()?;
        let count = server.read(&mut buffer).ok()?;
        client.write_all(&buffer[..count]).ok()?;
    }
}
