//! What takes too long for every run of the tests: `make test-long`.

mod cut_off;
mod database;
mod emptied;
mod leader;
