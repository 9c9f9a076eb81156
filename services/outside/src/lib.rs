//! The systems outside: payment gateway, carrier and mail provider, HTTP servers with ledgers of their own.
