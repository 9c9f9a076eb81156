//! Types over a table's bytes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Key, Range, ReadTables, StoreError, Tables};

/// How values become bytes.
pub trait Codec<V> {
    /// The bytes of `value`: the same for the same value, always.
    fn encode(value: &V) -> Vec<u8>;

    /// The value of `bytes`, or what is wrong with them.
    ///
    /// # Errors
    /// What does not fit, for people.
    fn decode(bytes: &[u8]) -> Result<V, String>;
}

/// Values are Protobuf messages.
#[derive(Clone, Copy, Debug)]
pub struct Protobuf;

impl<V: prost::Message + Default> Codec<V> for Protobuf {
    fn encode(value: &V) -> Vec<u8> {
        value.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<V, String> {
        V::decode(bytes).map_err(|error| error.to_string())
    }
}

/// Values are JSON, by serde. Keep maps ordered (`BTreeMap`).
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn encode(value: &V) -> Vec<u8> {
        serde_json::to_vec(value).expect("a stored type has no keys that JSON refuses")
    }

    fn decode(bytes: &[u8]) -> Result<V, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// A table with typed keys and values.
///
/// ```
/// use kit::store::{Json, Table};
/// # use shakedown_kit as kit;
/// const STOCK: Table<String, u64, Json> = Table::new("stock");
/// ```
pub struct Table<K, V, C = Protobuf> {
    name: &'static str,
    types: PhantomData<Types<K, V, C>>,
}

/// A table holds none of these, so it may cross threads whatever they are.
type Types<K, V, C> = fn() -> (K, V, C);

impl<K, V, C> Clone for Table<K, V, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, C> Copy for Table<K, V, C> {}

impl<K, V, C> fmt::Debug for Table<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

impl<K: Key, V, C: Codec<V>> Table<K, V, C> {
    /// The table called `name`. Names that begin with `kit.` are the kit's.
    pub const fn new(name: &'static str) -> Self {
        Table { name, types: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if what is there is no such value; else as [`ReadTables::get`].
    pub fn get<T: ReadTables + ?Sized>(&self, tables: &T, key: &K) -> Result<Option<V>, StoreError> {
        tables.get(self.name, &key.encode())?.map(|bytes| self.value(&bytes)).transpose()
    }

    /// Puts `value` under `key`, in place of what was there.
    ///
    /// # Errors
    /// As [`Tables::put`].
    pub fn put<T: Tables + ?Sized>(&self, tables: &mut T, key: &K, value: &V) -> Result<(), StoreError> {
        tables.put(self.name, &key.encode(), &C::encode(value))
    }

    /// Deletes `key`; says whether it was there.
    ///
    /// # Errors
    /// As [`Tables::delete`].
    pub fn delete<T: Tables + ?Sized>(&self, tables: &mut T, key: &K) -> Result<bool, StoreError> {
        tables.delete(self.name, &key.encode())
    }

    /// All entries, in the order of their keys.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn all<T: ReadTables + ?Sized>(&self, tables: &T) -> Result<Vec<(K, V)>, StoreError> {
        self.scan(tables, Range::ALL, usize::MAX)
    }

    /// At most `limit` entries with keys from `from` (included) to `to` (included), in order.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn between<T: ReadTables + ?Sized>(
        &self,
        tables: &T,
        from: &K,
        to: &K,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
        let (from, to) = (from.encode(), to.encode());
        let range = Range { from: Bound::Included(&from), to: Bound::Included(&to), prefix: &[] };
        self.scan(tables, range, limit)
    }

    /// At most `limit` entries with keys after `after`, in order.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn after<T: ReadTables + ?Sized>(
        &self,
        tables: &T,
        after: &K,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
        self.scan(tables, Range::after(&after.encode()), limit)
    }

    /// The entries whose keys begin with `prefix`: the first part of a tuple, say.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn with_prefix<T: ReadTables + ?Sized, P: Key>(
        &self,
        tables: &T,
        prefix: &P,
    ) -> Result<Vec<(K, V)>, StoreError> {
        self.scan(tables, Range::prefix(&prefix.encode()), usize::MAX)
    }

    /// The first entry.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn first<T: ReadTables + ?Sized>(&self, tables: &T) -> Result<Option<(K, V)>, StoreError> {
        Ok(self.scan(tables, Range::ALL, 1)?.pop())
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// As [`ReadTables::count`].
    pub fn count<T: ReadTables + ?Sized>(&self, tables: &T) -> Result<u64, StoreError> {
        tables.count(self.name)
    }

    fn scan<T: ReadTables + ?Sized>(
        &self,
        tables: &T,
        range: Range<'_>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
        let entries = tables.scan(self.name, range, limit)?;
        entries.into_iter().map(|(key, value)| Ok((self.key(&key)?, self.value(&value)?))).collect()
    }

    fn key(&self, bytes: &Bytes) -> Result<K, StoreError> {
        K::decode(bytes).ok_or_else(|| self.corrupt(format!("a key of {} bytes", bytes.len())))
    }

    fn value(&self, bytes: &Bytes) -> Result<V, StoreError> {
        C::decode(bytes).map_err(|cause| self.corrupt(cause))
    }

    fn corrupt(&self, cause: String) -> StoreError {
        StoreError::Corrupt { table: self.name.to_owned(), cause }
    }
}
