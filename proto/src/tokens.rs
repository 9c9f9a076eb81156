//! Values that outside systems and inventory refuse on purpose, so that a workload can ask for an exact number of
//! refusals. Real gateways and carriers have such test values too.

/// A payment method that the gateway declines.
pub const DECLINED_PAYMENT_METHOD: &str = "tok_declined";
/// A payment method that the gateway takes.
pub const GOOD_PAYMENT_METHOD: &str = "tok_visa";
/// A SKU of which inventory has none.
pub const SOLD_OUT_SKU: &str = "sku-sold-out";
/// A postal code to which the carrier does not deliver.
pub const UNSERVED_POSTAL_CODE: &str = "00000";
