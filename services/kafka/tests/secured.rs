//! Handshakes with real Kafka: users with passwords, and with the cargo feature `tls` certificates.
//!
//! One broker as a local process, with a key pair by the JDK's `keytool`. Without Java and Maven each test shows as ignored, with
//! the reason; with `SHAKEDOWN_REQUIRE_KAFKA=1` that is a failure. Where a test fails, the broker's logs are kept.

#![expect(clippy::disallowed_methods, reason = "real processes, files and ports")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::{Broker as _, Error, ErrorCode, NewTopic, ProducerRecord, Properties, TopicPartition};
use cluster::{Jars, Listener, Processes, Spec, ports};
use context::Seed;
use context::real::RealHost;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use shakedown_rdkafka::RdKafkaBroker;
use tempfile::TempDir;

const PLAIN: &str = "SASL_PLAINTEXT";
const TLS: &str = "SASL_SSL";
const PASSWORD: &str = "opens";
const SCRAM: &str = "SCRAM-SHA-256";
const STORE_PASSWORD: &str = "keeps-keys";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one small broker.
    arguments.test_threads = Some(1);
    let broker = Arc::new(OnceLock::new());
    let mut claims: Vec<(&str, Claim)> = vec![
        ("a_user_with_a_password_writes_and_reads", a_user_with_a_password_writes_and_reads),
        ("a_wrong_password_reaches_nothing", a_wrong_password_reaches_nothing),
    ];
    if cfg!(feature = "tls") {
        claims.push((
            "a_user_writes_and_reads_over_tls_with_a_known_certificate",
            a_user_writes_and_reads_over_tls_with_a_known_certificate,
        ));
        claims.push((
            "a_certificate_that_nobody_vouches_for_is_refused",
            a_certificate_that_nobody_vouches_for_is_refused,
        ));
        claims.push(("a_user_of_scram_writes_and_reads", a_user_of_scram_writes_and_reads));
        claims.push(("a_user_of_scram_writes_and_reads_over_tls", a_user_of_scram_writes_and_reads_over_tls));
        claims.push((
            "a_wrong_password_of_a_user_of_scram_reaches_nothing",
            a_wrong_password_of_a_user_of_scram_reaches_nothing,
        ));
    }
    let trials = claims.into_iter().map(|(name, claim)| trial(name, &broker, claim)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed()
        && let Some(Ok(secured)) = broker.get()
    {
        match secured.processes.keep_logs() {
            Ok(folder) => println!("the logs of the broker are kept in {}", folder.display()),
            Err(error) => println!("the logs of the broker cannot be kept: {error}"),
        }
    }
    conclusion.exit_code()
}

/// Panics where it does not hold.
type Claim = fn(&Secured);
type Started = Arc<OnceLock<Result<Secured, Missing>>>;

fn trial(name: &str, broker: &Started, claim: Claim) -> Trial {
    let broker = broker.clone();
    Trial::ignorable_test(name, move || match broker.get_or_init(Secured::start) {
        Ok(secured) => {
            claim(secured);
            Ok(Completion::Completed)
        }
        Err(Missing::Java(why)) if std::env::var("SHAKEDOWN_REQUIRE_KAFKA").as_deref() != Ok("1") => {
            Ok(Completion::ignored_with(why))
        }
        Err(Missing::Java(why) | Missing::Broken(why)) => Err(Failed::from(why)),
    })
}

/// Why there is no broker.
enum Missing {
    Java(String),
    Broken(String),
}

/// A broker that asks who is there.
struct Secured {
    processes: Processes,
    folder: TempDir,
    ports: [u16; 2],
}

impl Secured {
    fn start() -> Result<Secured, Missing> {
        let jars = Jars::find().map_err(|error| Missing::Java(error.to_string()))?;
        let broken = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| Missing::Broken(format!("{what}: {error}"))
        };
        let folder = tempfile::tempdir().map_err(broken("a folder"))?;
        let store = make_key(&folder).map_err(Missing::Broken)?;
        let ports = ports::free(2).map_err(broken("ports"))?;
        let ports = [ports[0], ports[1]];
        let mut spec = Spec::for_tests(1).with([
            ("ssl.keystore.type", "PKCS12"),
            ("ssl.keystore.location", &store.display().to_string()),
            ("ssl.keystore.password", STORE_PASSWORD),
            ("ssl.key.password", STORE_PASSWORD),
        ]);
        // Of each mechanism's users the other knows none.
        spec.scram_users.insert("till".into(), PASSWORD.into());
        for (name, port) in [PLAIN, TLS].into_iter().zip(ports) {
            let advertised_host = "localhost".into();
            spec.listeners.push(Listener {
                broker: 1,
                name: name.into(),
                port,
                advertised_host,
                advertised_port: port,
            });
            let prefix = format!("listener.name.{}", name.to_lowercase());
            spec = spec.with([
                (format!("{prefix}.sasl.enabled.mechanisms"), format!("PLAIN,{SCRAM}")),
                (
                    format!("{prefix}.plain.sasl.jaas.config"),
                    format!(
                        "org.apache.kafka.common.security.plain.PlainLoginModule required user_shop=\"{PASSWORD}\";"
                    ),
                ),
                (
                    format!("{prefix}.scram-sha-256.sasl.jaas.config"),
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;".into(),
                ),
            ]);
        }
        let processes = Processes::start(&jars, &spec).map_err(|error| Missing::Broken(error.to_string()))?;
        Ok(Secured { processes, folder, ports })
    }

    /// What a client of a listener with this password is made of.
    fn properties(&self, listener: &str, password: &str) -> Properties {
        let port = if listener == PLAIN { self.ports[0] } else { self.ports[1] };
        Properties::new()
            .set("bootstrap.servers", format!("localhost:{port}"))
            .set("broker.address.family", "v4")
            .set("security.protocol", listener)
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", "shop")
            .set("sasl.password", password)
    }

    /// As [`Secured::properties`], for the user whom SCRAM knows.
    fn scram(&self, listener: &str, password: &str) -> Properties {
        self.properties(listener, password).set("sasl.mechanism", SCRAM).set("sasl.username", "till")
    }

    fn certificate(&self) -> PathBuf {
        certificate(&self.folder)
    }
}

fn certificate(folder: &TempDir) -> PathBuf {
    folder.path().join("broker.pem")
}

/// A key pair for `localhost` in a store of Java's, and its certificate, which vouches for itself, beside it.
fn make_key(folder: &TempDir) -> Result<PathBuf, String> {
    let store = folder.path().join("broker.p12");
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new("keytool");
        command.args(arguments).args([
            "-alias",
            "broker",
            "-storetype",
            "PKCS12",
            "-storepass",
            STORE_PASSWORD,
        ]);
        let said =
            command.arg("-keystore").arg(&store).output().map_err(|error| format!("keytool: {error}"))?;
        let text =
            || format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        if said.status.success() { Ok(()) } else { Err(text()) }
    };
    keytool(&["-genkeypair", "-keyalg", "RSA", "-dname", "CN=localhost", "-ext", "san=dns:localhost"])?;
    keytool(&["-exportcert", "-rfc", "-file", &certificate(folder).display().to_string()])?;
    Ok(store)
}

/// As [`write_and_read_within`], with all the time that a busy machine needs.
fn write_and_read(topic: &str, properties: Properties) -> Result<(), Error> {
    write_and_read_within(Duration::from_secs(120), topic, properties)
}

/// How whoever is to be refused is refused: librdkafka tries for twenty seconds.
fn refused(topic: &str, properties: Properties) -> Error {
    let fate = write_and_read_within(Duration::from_secs(20), topic, properties);
    fate.expect_err("it is let in")
}

/// Writes a record, within this span, and reads it, each with clients of these properties.
fn write_and_read_within(span: Duration, topic: &str, properties: Properties) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let context = RealHost::new("tester", Seed(7)).into_context();
        let broker = RdKafkaBroker::new(context.clone(), properties);
        let soon = Properties::new().set("delivery.timeout.ms", span.as_millis());
        let producer = broker.producer(&soon).await?;
        let sent = producer.send(ProducerRecord::new(topic, "key", "value")).await?;
        let admin = broker.admin(&Properties::new()).await?;
        admin.create_topics(&[NewTopic::new(format!("{topic}-beside"), 1)]).await?;
        let beginning = Properties::new().set("group.id", "g").set("auto.offset.reset", "earliest");
        let mut consumer = broker.consumer(&beginning).await?;
        consumer.assign(&[TopicPartition::new(topic, sent.partition.partition)]).await?;
        let deadline = context.now() + Duration::from_secs(60);
        let records = loop {
            match consumer.poll(Duration::from_secs(1)).await {
                Ok(records) if records.is_empty() && context.now() < deadline => {}
                // A young broker has only begun to coordinate groups, and the next poll asks again.
                Err(error) if error.is_retriable() && context.now() < deadline => {}
                polled => break polled?,
            }
        };
        assert_eq!(records.len(), 1, "what was written is read");
        assert_eq!(records[0].value.as_deref(), Some(&b"value"[..]));
        consumer.close().await?;
        producer.close(Duration::from_secs(10)).await
    })
}

fn a_user_with_a_password_writes_and_reads(secured: &Secured) {
    write_and_read("plain", secured.properties(PLAIN, PASSWORD)).expect("the password is right");
}

fn a_wrong_password_reaches_nothing(secured: &Secured) {
    let refused = refused("plain", secured.properties(PLAIN, "open sesame"));
    assert_eq!(refused.code, ErrorCode::MessageTimedOut, "librdkafka tries again until then: {refused}");
}

fn a_user_writes_and_reads_over_tls_with_a_known_certificate(secured: &Secured) {
    let properties =
        secured.properties(TLS, PASSWORD).set("ssl.ca.location", secured.certificate().display());
    write_and_read("tls", properties).expect("certificate and password are right");
}

fn a_certificate_that_nobody_vouches_for_is_refused(secured: &Secured) {
    // Without a word about certificates, those of the system are asked.
    let refused = refused("tls", secured.properties(TLS, PASSWORD));
    assert_eq!(refused.code, ErrorCode::MessageTimedOut, "{refused}");
}

fn a_user_of_scram_writes_and_reads(secured: &Secured) {
    write_and_read("scram", secured.scram(PLAIN, PASSWORD)).expect("the password is right");
}

fn a_user_of_scram_writes_and_reads_over_tls(secured: &Secured) {
    let properties = secured.scram(TLS, PASSWORD).set("ssl.ca.location", secured.certificate().display());
    write_and_read("scram-tls", properties).expect("certificate and password are right");
}

fn a_wrong_password_of_a_user_of_scram_reaches_nothing(secured: &Secured) {
    let refused = refused("scram", secured.scram(PLAIN, "open sesame"));
    assert_eq!(refused.code, ErrorCode::MessageTimedOut, "librdkafka tries again until then: {refused}");
}
