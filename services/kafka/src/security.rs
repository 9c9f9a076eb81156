//! TLS and SASL: what this build of librdkafka has of them, and a clear word about the rest.
//!
//! SASL PLAIN is in every build. TLS and SCRAM come with the cargo feature `tls`. Kerberos is in none, and OAUTHBEARER only with
//! librdkafka's unsecured tokens: nobody here fetches others.

use broker::{Error, Properties};
use rdkafka::ClientConfig;

use crate::error::{from_kafka, invalid_config};

const PROTOCOL: &str = "security.protocol";
/// Both are librdkafka's, for the same thing.
const MECHANISM: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];
const UNSECURED: &str = "enable.sasl.oauthbearer.unsecure.jwt";

const NO_TLS: &str = "this build has no TLS and no SCRAM: build it with the cargo feature `tls` of `shakedown-rdkafka` \
                      (`cargo build -p shakedown-services --features tls`)";
const NO_KERBEROS: &str =
    "Kerberos is not built in: set `sasl.mechanism` to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
const NO_TOKENS: &str = "nobody here fetches tokens: set `sasl.mechanism` to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, or \
                         `enable.sasl.oauthbearer.unsecure.jwt` to true for tokens without a signature";

/// Refuses what this build cannot do, and tells librdkafka where certificates are.
pub(crate) fn secure(properties: &Properties, config: &mut ClientConfig) -> Result<(), Error> {
    let has_tls = has_tls()?;
    let protocol = properties.get(PROTOCOL).unwrap_or_default().to_ascii_uppercase();
    let refuse =
        |name: &str, value: &str, why: &str| Err(invalid_config(format!("`{name}` = `{value}`: {why}")));
    for (name, value) in properties.iter() {
        // A value of these may be a secret.
        if name.starts_with("ssl.") && !has_tls {
            return Err(invalid_config(format!("`{name}`: {NO_TLS}")));
        }
        if name == PROTOCOL && protocol.ends_with("SSL") && !has_tls {
            return refuse(name, value, NO_TLS);
        }
        if MECHANISM.contains(&name) {
            match value {
                "GSSAPI" => return refuse(name, value, NO_KERBEROS),
                "OAUTHBEARER" if properties.get(UNSECURED) != Some("true") => {
                    return refuse(name, value, NO_TOKENS);
                }
                "PLAIN" => {}
                _ if !has_tls => return refuse(name, value, NO_TLS),
                _ => {}
            }
        }
    }
    if protocol.starts_with("SASL") && MECHANISM.iter().all(|name| properties.get(name).is_none()) {
        // librdkafka's default.
        return refuse(PROTOCOL, &protocol, NO_KERBEROS);
    }
    let own = ["ssl.ca.location", "ssl.ca.pem"];
    if protocol.ends_with("SSL") && own.iter().all(|name| properties.get(name).is_none()) {
        // The OpenSSL that is built along looks for certificates where it would have been installed, which is nowhere; this makes
        // librdkafka look where Linux distributions keep theirs.
        config.set("ssl.ca.location", "probe");
    }
    Ok(())
}

/// Asks librdkafka, because whoever builds a program may have switched its feature on elsewhere.
fn has_tls() -> Result<bool, Error> {
    let built_in =
        ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features"));
    let built_in = built_in.map_err(|error| from_kafka(&error, "the features of librdkafka"))?;
    Ok(built_in.trim_end_matches('\0').split(',').any(|feature| feature == "ssl"))
}
