//! What admin tools may change, and how.

use super::Mutant;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "settings-are-never-taken-away",
        breaks: "AlterConfigs keeps what it does not name, and nothing goes back to its default",
        file: "sim/kafka/src/controller/configs.rs",
        place: "names.into_iter().filter(|name| «before.get(*name) != after.get(*name)»)",
        becomes: "after.contains_key(*name) && before.get(*name) != after.get(*name)",
        red: &[
            "admin::the_older_request_takes_away_what_it_does_not_name",
            "admin::settings_change_while_the_cluster_runs",
        ],
    },
    Mutant {
        name: "any-broker-changes-any-broker",
        breaks: "the settings of one broker are changed through every broker",
        file: "sim/kafka/src/broker/alter_configs.rs",
        place: "Ok(node) if «node == self.node» => None,",
        becomes: "node >= 0",
        red: &["admin::a_brokers_settings_change_through_that_broker_alone"],
    },
    Mutant {
        name: "any-setting-is-taken",
        breaks: "a change of settings is not looked at",
        file: "sim/kafka/src/controller/configs.rs",
        place: "«self.check_config(&resource, &changed, &after)?»;",
        becomes: "()",
        red: &["admin::changes_are_refused_with_kafkas_codes"],
    },
    Mutant {
        name: "no-unclean-elections-by-asking",
        breaks: "ElectLeaders elects nobody who may lack records",
        file: "sim/kafka/src/controller/partitions.rs",
        place: "1 => «Kind::Unclean»,\n            _ => {",
        becomes: "Kind::Online",
        red: &["admin::whoever_asks_for_an_unclean_election_gets_a_leader_and_loses_what_it_lacks"],
    },
];
