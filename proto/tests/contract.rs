//! The contract as it stands: what the bytes are, and that the description has not changed unnoticed.

use proptest::prelude::*;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};
use proto::order::{Address, Command, CreateOrder, Item};
use proto::{Contract, DecodeError};
use shakedown_proto as proto;

#[test]
fn the_schema_changes_only_on_purpose() {
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let mut text = String::new();
    for file in &files.file {
        for message in &file.message_type {
            text += &format!("{}.{}\n", file.package(), message.name());
            for field in &message.field {
                let of = match field.r#type() {
                    Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
                    scalar => format!("{scalar:?}").to_lowercase(),
                };
                let many = if field.label() == Label::Repeated { "repeated " } else { "" };
                text += &format!("  {} {} {many}{of}\n", field.number(), field.name());
            }
        }
        for kind in &file.enum_type {
            text += &format!("{}.{}\n", file.package(), kind.name());
            for value in &kind.value {
                text += &format!("  {} {}\n", value.number(), value.name());
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn every_message_of_the_schema_has_a_topic_or_is_a_part_of_one_that_has() {
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let parts = ["Item", "Address", "Line"];
    let kinds: Vec<&str> = [
        proto::order::Command::KINDS,
        proto::order::Event::KINDS,
        proto::inventory::Command::KINDS,
        proto::inventory::Event::KINDS,
        proto::payment::Command::KINDS,
        proto::payment::Event::KINDS,
        proto::shipping::Command::KINDS,
        proto::shipping::Event::KINDS,
        proto::notification::Command::KINDS,
        proto::notification::Event::KINDS,
    ]
    .concat();
    for message in files.file.iter().flat_map(|file| &file.message_type) {
        let name = message.name();
        assert!(kinds.contains(&name) || parts.contains(&name), "`{name}` travels on no topic");
    }
}

fn create(quantity: u32, unit_price: i64, name: &str) -> CreateOrder {
    CreateOrder {
        order_id: "o-1".into(),
        customer_id: "c-1".into(),
        items: vec![Item { sku: "sku-1".into(), name: name.into(), quantity, unit_price }],
        currency: "EUR".into(),
        payment_method: proto::tokens::GOOD_PAYMENT_METHOD.into(),
        address: Some(Address { city: "Kiel".into(), ..Address::default() }),
    }
}

#[test]
fn the_bytes_of_a_message_are_the_same_in_every_release() {
    let hex: String =
        create(2, 1999, "Lamp").encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
}

#[test]
fn a_payload_that_is_no_message_of_its_topic_says_why() {
    let bytes = create(1, 1, "x").encode_to_vec();
    assert!(Command::decode(CreateOrder::KIND, &bytes).is_ok());
    let error = |kind: &str, bytes: &[u8]| Command::decode(kind, bytes).unwrap_err();
    assert_eq!(
        error("OrderCreated", &bytes).to_string(),
        "event type `OrderCreated` does not travel on `order.commands`"
    );
    assert!(matches!(error("CreateOrder", &[0xff]), DecodeError::Malformed { .. }));
    assert!(matches!(error("CreateOrder", &[]), DecodeError::NoOrder { .. }));
}

proptest! {
    #[test]
    fn a_message_encodes_to_the_same_bytes_each_time_and_back(
        quantity in any::<u32>(), unit_price in any::<i64>(), name in ".{0,20}",
    ) {
        let message = create(quantity, unit_price, &name);
        let bytes = message.encode_to_vec();
        prop_assert_eq!(&bytes, &message.clone().encode_to_vec());
        prop_assert_eq!(CreateOrder::decode(bytes.as_slice()).unwrap(), message);
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in Command::KINDS {
            Command::decode(kind, &bytes).ok();
        }
    }
}
