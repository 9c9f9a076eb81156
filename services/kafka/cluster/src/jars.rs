//! Kafka's jars, resolved by Maven into a cache outside the source tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::{ClusterError, io_error};

/// The version that is compared with.
pub const KAFKA_VERSION: &str = "4.1.0";

/// The oldest Java that runs it.
const JAVA_MIN: u32 = 17;

/// A node's heap: enough for tests.
pub(crate) const HEAP: &str = "-Xms128m -Xmx512m";

/// What makes a Java start quickly: no optimising, no threads that collect garbage. Without it three nodes take twice as long.
pub(crate) const QUICK: &str = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1";

/// How long Maven may take: 19 s on a quick line.
const RESOLVED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// Where the jars are, and the Java that runs them.
#[derive(Clone, Debug)]
pub struct Jars {
    folder: PathBuf,
    java: PathBuf,
}

impl Jars {
    /// Finds Java (`$JAVA_HOME/bin/java`, or `java` on the path), and the jars of [`KAFKA_VERSION`] in the cache, or has Maven
    /// fetch them, which takes its time. The cache is `$XDG_CACHE_HOME/shakedown`, or `~/.cache/shakedown`.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`] says what is missing and what to do.
    pub fn find() -> Result<Jars, ClusterError> {
        let java = java();
        check_version(&java)?;
        let home = cache().join(format!("kafka-{KAFKA_VERSION}"));
        let folder = home.join("libs");
        fs::create_dir_all(&folder).map_err(io_error(format!("making {}", folder.display())))?;
        // Several test programs may look at once: one fetches, the others wait.
        let lock = fs::File::create(home.join("lock")).map_err(io_error("opening the lock of the jars"))?;
        lock.lock().map_err(io_error("waiting for whoever fetches the jars"))?;
        let complete = home.join("complete");
        if !complete.exists() {
            resolve(&home, &folder)?;
            fs::write(&complete, "").map_err(io_error("marking the jars as complete"))?;
        }
        Ok(Jars { folder, java })
    }

    /// The folder with the jars and nothing else.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Java with the jars on its class path, to run `class`.
    pub(crate) fn java(&self, class: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.args(HEAP.split(' ')).args(QUICK.split(' '));
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=info");
        command.arg("-cp").arg(self.folder.join("*")).arg(class);
        command
    }
}

fn cache() -> PathBuf {
    let own = |name: &str| std::env::var(name).ok().filter(|path| Path::new(path).is_absolute());
    let caches = own("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| own("HOME").map(|home| Path::new(&home).join(".cache")));
    caches.unwrap_or_else(std::env::temp_dir).join("shakedown")
}

fn java() -> PathBuf {
    let named = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    named.filter(|java| java.is_file()).unwrap_or_else(|| "java".into())
}

fn check_version(java: &Path) -> Result<(), ClusterError> {
    let missing = |why: String| {
        ClusterError::Unavailable(format!(
            "Java {JAVA_MIN} or newer is not at hand: `{}`: {why}",
            java.display()
        ))
    };
    let output = Command::new(java).arg("-version").output().map_err(|error| missing(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match version {
        Some(version) if version >= JAVA_MIN => Ok(()),
        _ => Err(missing(format!("`java -version` says {}", text.lines().next().unwrap_or("nothing")))),
    }
}

fn maven_version() -> Result<(), ClusterError> {
    let version = Command::new("mvn").arg("-version").output();
    version.map(|_| ()).map_err(|error| {
        ClusterError::Unavailable(format!(
            "Kafka's jars are not in the cache, and come through Maven, `mvn`: {error}"
        ))
    })
}

fn resolve(home: &Path, folder: &Path) -> Result<(), ClusterError> {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        dependency("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    ];
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion><groupId>shakedown</groupId>\
         <artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>{}</dependencies></project>",
        dependencies.concat()
    );
    let file = home.join("pom.xml");
    fs::write(&file, pom).map_err(io_error("writing Maven's file"))?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&file).arg("dependency:copy-dependencies");
    maven.arg(format!("-DoutputDirectory={}", folder.display()));
    maven_version()?;
    let log = home.join("maven.log");
    fs::write(&log, "").map_err(io_error("emptying Maven's log"))?;
    let status = Process::spawn(&maven, &log)?.wait(RESOLVED_WITHIN)?;
    if status.is_none_or(|status| !status.success()) {
        let text = fs::read_to_string(&log).unwrap_or_default();
        return Err(ClusterError::Unavailable(format!("Maven could not resolve Kafka's jars: {text}")));
    }
    // One binding for the log is enough; slf4j complains of more.
    for entry in fs::read_dir(folder).map_err(io_error("reading the jars"))? {
        let path = entry.map_err(io_error("reading the jars"))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("slf4j-reload4j")
            || name.starts_with("slf4j-log4j")
            || name.starts_with("log4j-slf4j")
        {
            fs::remove_file(&path).map_err(io_error("removing a second log binding"))?;
        }
    }
    Ok(())
}
