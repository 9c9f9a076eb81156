use super::*;

#[test]
fn a_setting_is_a_variable_as_the_image_reads_it() {
    assert_eq!(variable("log.retention.check.interval.ms"), "KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS");
    assert_eq!(variable("listener.name.a_b.x-y"), "KAFKA_LISTENER_NAME_A__B_X___Y");
}

#[test]
fn two_engines_are_none() {
    assert!(same_engine("A", "A").is_ok());
    let error = same_engine("A", "B").unwrap_err();
    assert!(matches!(error, ClusterError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("`A`") && error.to_string().contains("`B`"), "{error}");
}

#[test]
fn an_image_has_a_name_and_a_tag() {
    assert_eq!(split("apache/kafka:4.1.0"), ("apache/kafka", "4.1.0"));
    assert_eq!(split("registry:5000/kafka"), ("registry:5000/kafka", "latest"));
    assert_eq!(split("registry:5000/kafka:4"), ("registry:5000/kafka", "4"));
}
