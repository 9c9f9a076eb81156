//! What the one who runs the tests wants: settings by environment.

/// Which real Kafka, said by the environment. An empty variable says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `KAFKA_BOOTSTRAP_SERVERS`: a Kafka that is there already, as clients bootstrap from it.
    pub bootstrap_servers: Option<String>,
    /// `SHAKEDOWN_KAFKA`: which kind to start, `processes` or `containers`; not set, containers if they can be had.
    pub kind: Option<Kind>,
    /// `SHAKEDOWN_KAFKA_BROKERS`: with how many brokers, where tests leave it open.
    pub brokers: Option<u32>,
    /// `SHAKEDOWN_KAFKA_IMAGE`: from which image containers are; not set, [`DEFAULT_IMAGE`].
    pub image: Option<String>,
    /// `SHAKEDOWN_REQUIRE_KAFKA=1`: a test that finds none fails in place of being skipped.
    pub required: bool,
}

/// The image of Apache Kafka's own project.
pub const DEFAULT_IMAGE: &str = "apache/kafka:4.1.0";

/// How a cluster is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Containers of a Docker engine.
    Containers,
    /// Local processes.
    Processes,
}

impl Wanted {
    /// Reads the environment.
    ///
    /// # Errors
    /// A sentence on the first variable that has no meaning.
    pub fn from_environment() -> Result<Wanted, String> {
        Wanted::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Wanted, String> {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let kind = match said("SHAKEDOWN_KAFKA").as_deref() {
            None => None,
            Some("containers") => Some(Kind::Containers),
            Some("processes") => Some(Kind::Processes),
            Some(other) => {
                return Err(format!("SHAKEDOWN_KAFKA is `processes` or `containers`, not `{other}`"));
            }
        };
        let brokers = match said("SHAKEDOWN_KAFKA_BROKERS") {
            None => None,
            Some(count) => match count.parse() {
                Ok(count @ 1..=9) => Some(count),
                _ => return Err(format!("SHAKEDOWN_KAFKA_BROKERS is a number from 1 to 9, not `{count}`")),
            },
        };
        let required = match said("SHAKEDOWN_REQUIRE_KAFKA").as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => return Err(format!("SHAKEDOWN_REQUIRE_KAFKA is `1` or `0`, not `{other}`")),
        };
        let bootstrap_servers = said("KAFKA_BOOTSTRAP_SERVERS");
        Ok(Wanted { bootstrap_servers, kind, brokers, image: said("SHAKEDOWN_KAFKA_IMAGE"), required })
    }

    /// The image for containers.
    pub fn image(&self) -> &str {
        self.image.as_deref().unwrap_or(DEFAULT_IMAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Wanted, String> {
        Wanted::read(|wanted| {
            let found = environment.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_variable_says_its_part_and_an_empty_one_nothing() {
        let wanted = read(&[
            ("KAFKA_BOOTSTRAP_SERVERS", "h:1"),
            ("SHAKEDOWN_KAFKA", "containers"),
            ("SHAKEDOWN_KAFKA_BROKERS", "1"),
            ("SHAKEDOWN_KAFKA_IMAGE", "i:1"),
            ("SHAKEDOWN_REQUIRE_KAFKA", "1"),
        ])
        .unwrap();
        let expected = Wanted {
            bootstrap_servers: Some("h:1".into()),
            kind: Some(Kind::Containers),
            brokers: Some(1),
            image: Some("i:1".into()),
            required: true,
        };
        assert_eq!(wanted, expected);
        assert_eq!(read(&[("KAFKA_BOOTSTRAP_SERVERS", ""), ("SHAKEDOWN_KAFKA", "")]), Ok(Wanted::default()));
        assert_eq!(Wanted::default().image(), DEFAULT_IMAGE);
    }

    #[test]
    fn a_value_without_meaning_is_named() {
        for (name, value) in [
            ("SHAKEDOWN_KAFKA", "docker"),
            ("SHAKEDOWN_KAFKA_BROKERS", "0"),
            ("SHAKEDOWN_REQUIRE_KAFKA", "yes"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
