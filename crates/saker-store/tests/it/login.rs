//! Users, passwords, databases, Unix sockets and TLS.

use std::time::Duration;

use saker_store::{Connection, Link, Reply, Settings, StoreError};
use saker_testing::{tls::TlsProxy, valkey::Valkey};

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
    // The request path gets the reason, without the password.
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

#[test]
fn tls_with_a_certificate_authority_of_our_own() {
    let valkey = Valkey::start().expect("a running Valkey");
    command(&mut connect(&valkey.url(0)), &["SET", "k", "v"]);
    let proxy = TlsProxy::start(valkey.port()).expect("a proxy");
    let (port, authority) = (proxy.port(), proxy.authority());
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
    // An unknown certificate authority. A system without any authorities refuses earlier.
    if let Ok(settings) = Settings::parse(&url, None) {
        let error = Connection::open(&settings).err().expect("refused");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    // The server does not use TLS.
    let plain = format!("rediss://localhost:{}/0", valkey.port());
    assert!(
        Connection::open(&Settings::parse(&plain, Some(&authority)).expect("settings")).is_err()
    );
    // The file has no certificate.
    std::fs::write(&authority, "nothing").expect("a file");
    let error = Settings::parse(&url, Some(&authority))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("PEM"), "{error}");
}
