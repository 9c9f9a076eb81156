//! What a build has of TLS and SASL, and says of what it has not. Handshakes are in `tests/secured.rs`.

use broker::{Broker as _, ErrorCode, Properties};
use context::Seed;
use context::real::RealHost;
use shakedown_rdkafka::RdKafkaBroker;

async fn refusal(properties: Properties) -> Option<String> {
    let context = RealHost::new("tester", Seed(7)).into_context();
    let properties = Properties::new().set("bootstrap.servers", "127.0.0.1:1").with(&properties);
    let broker = RdKafkaBroker::new(context, properties);
    let error = broker.producer(&Properties::new()).await.err()?;
    assert_eq!(error.code, ErrorCode::InvalidConfig, "{error}");
    for other in
        [broker.consumer(&Properties::new()).await.err(), broker.admin(&Properties::new()).await.err()]
    {
        assert_eq!(other.map(|other| other.message), Some(error.message.clone()), "all clients say the same");
    }
    Some(error.message)
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn a_build_without_tls_says_what_to_build() {
    let wanting = [
        ("security.protocol", "SASL_SSL"),
        ("security.protocol", "ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.mechanisms", "SCRAM-SHA-256"),
    ];
    for (name, value) in wanting {
        let properties = Properties::new().set("sasl.username", "shop").set("sasl.password", "secret");
        let said = refusal(properties.set(name, value)).await.expect("it cannot be had");
        assert!(said.contains(&format!("`{name}` = `{value}`")), "{said}");
        assert!(said.contains("cargo feature `tls`"), "{said}");
    }
    let said = refusal(Properties::new().set("ssl.key.password", "secret")).await.expect("it cannot be had");
    assert!(said.contains("`ssl.key.password`: ") && said.contains("cargo feature `tls`"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn kerberos_is_in_no_build_and_that_is_said() {
    let kerberos =
        Properties::new().set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", "GSSAPI");
    let said = refusal(kerberos).await.expect("it cannot be had");
    assert!(said.contains("`sasl.mechanism` = `GSSAPI`") && said.contains("Kerberos"), "{said}");
    // librdkafka's default.
    let said = refusal(Properties::new().set("security.protocol", "SASL_PLAINTEXT"))
        .await
        .expect("it cannot be had");
    assert!(said.contains("Kerberos") && said.contains("set `sasl.mechanism`"), "{said}");
}

#[tokio::test]
async fn nobody_fetches_tokens_and_that_is_said() {
    let tokens =
        Properties::new().set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", "OAUTHBEARER");
    let said = refusal(tokens).await.expect("it cannot be had");
    assert!(said.contains("`sasl.mechanism` = `OAUTHBEARER`: nobody here fetches tokens"), "{said}");
}

#[tokio::test]
async fn a_password_in_plain_text_needs_no_tls() {
    let plain = Properties::new().set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", "PLAIN");
    let said = refusal(plain.set("sasl.username", "shop").set("sasl.password", "secret")).await;
    assert_eq!(said, None);
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_build_with_tls_has_scram() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let scram = Properties::new().set("security.protocol", "SASL_SSL").set("sasl.mechanism", mechanism);
        let said = refusal(scram.set("sasl.username", "shop").set("sasl.password", "secret")).await;
        assert_eq!(said, None);
    }
}
