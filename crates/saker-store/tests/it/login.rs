//! Users, passwords, databases, Unix sockets and TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use saker_store::{Connection, Link, Reply, Settings, StoreError};
use triton_testing::valkey::Valkey;

use crate::support::{bytes, command, connect, get, settings};

#[test]
fn a_user_with_a_password() {
    let valkey = Valkey::builder()
        .user("saker", "p@ss/word")
        .start()
        .expect("a running Valkey");
    let place = format!("127.0.0.1:{}/0", valkey.port());
    // User and password are percent-encoded in a URL.
    command(
        &mut connect(&format!("redis://saker:p%40ss%2Fword@{place}")),
        &["SET", "k", "v"],
    );
    for login in ["saker:hunter2@", "nobody:hunter2@", ":hunter2@", ""] {
        let error = Connection::open(&settings(&format!("redis://{login}{place}")))
            .err()
            .expect("no entry");
        assert!(matches!(error, StoreError::Server(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    // The request path hears why, and not the password.
    let link = Link::open(settings(&format!("redis://saker:hunter2@{place}"))).expect("a link");
    let mut client = link.client();
    assert!(!client.wait(Duration::from_millis(300)));
    let error = get(&mut client, "k")
        .expect_err("no connection")
        .to_string();
    assert!(
        error.contains("AUTH refused") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn databases_are_apart() {
    let valkey = Valkey::start().expect("a running Valkey");
    command(&mut connect(&valkey.url(3)), &["SET", "k", "three"]);
    assert_eq!(
        command(&mut connect(&valkey.url(0)), &["GET", "k"]),
        Reply::Nil
    );
    let same = settings(&valkey.url(0))
        .with_database(3)
        .expect("a database");
    let mut connection = Connection::open(&same).expect("a connection");
    assert_eq!(bytes(&command(&mut connection, &["GET", "k"])), b"three");
    assert!(
        Connection::open(
            &settings(&valkey.url(0))
                .with_database(200)
                .expect("a number")
        )
        .is_err()
    );
}

#[test]
fn a_unix_socket() {
    let valkey = Valkey::builder().unix().start().expect("a running Valkey");
    let mut connection = connect(&valkey.url(0));
    command(&mut connection, &["SET", "k", "v"]);
    assert_eq!(bytes(&command(&mut connection, &["GET", "k"])), b"v");
}

/// Puts TLS in front of a plain server, as stunnel does, and gives the port and the certificate.
fn tls_proxy(target: u16) -> (u16, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let pem = cert.pem();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a server config");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || serve_tls(client, config, target));
        }
    });
    (port, pem)
}

/// Question and answer in turn, which is all that our protocol needs: what the client sends in one go is answered.
fn serve_tls(client: TcpStream, config: Arc<rustls::ServerConfig>, target: u16) {
    let mut server = TcpStream::connect(("127.0.0.1", target)).expect("the plain server");
    let session = rustls::ServerConnection::new(config).expect("a session");
    let mut client = rustls::StreamOwned::new(session, client);
    let mut buffer = [0; 65_536];
    while let Ok(count) = client.read(&mut buffer) {
        if count == 0 || server.write_all(&buffer[..count]).is_err() {
            return;
        }
        let Ok(count) = server.read(&mut buffer) else {
            return;
        };
        if client.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn tls_with_a_certificate_authority_of_our_own() {
    let valkey = Valkey::start().expect("a running Valkey");
    command(&mut connect(&valkey.url(0)), &["SET", "k", "v"]);
    let (port, pem) = tls_proxy(valkey.port());
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, pem).expect("a file");

    let url = format!("rediss://localhost:{port}/0");
    let mut connection =
        Connection::open(&Settings::parse(&url, Some(&authority)).expect("settings"))
            .expect("a connection");
    assert_eq!(bytes(&command(&mut connection, &["GET", "k"])), b"v");

    // A certificate for another name.
    let other = format!("rediss://127.0.0.1:{port}/0");
    let error =
        Connection::open(&Settings::parse(&other, Some(&authority)).expect("settings")).err();
    assert!(error.expect("refused").to_string().contains("certificate"));
    // One whose authority nobody knows. A system without any authorities refuses before.
    if let Ok(settings) = Settings::parse(&url, None) {
        let error = Connection::open(&settings).err().expect("refused");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    // No TLS at the other end.
    let plain = format!("rediss://localhost:{}/0", valkey.port());
    assert!(
        Connection::open(&Settings::parse(&plain, Some(&authority)).expect("settings")).is_err()
    );
    // No certificate in the file.
    std::fs::write(&authority, "nothing").expect("a file");
    let error = Settings::parse(&url, Some(&authority))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("PEM"), "{error}");
}
