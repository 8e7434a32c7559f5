//! Every number that bounds a plugin. Measured where a comment says so, else chosen far above what an honest one needs.

use std::time::Duration;

/// Largest component file; compiling one of that size takes about half a minute.
pub const COMPONENT_BYTES: u64 = 64 << 20;
/// Largest native code the compiler may hand back; about twice to four times the component.
pub(super) const NATIVE_BYTES: u64 = 512 << 20;
/// How long compiling may take.
pub(super) const COMPILE_TIME: Duration = Duration::from_secs(120);
/// How long a runner may take from its start until it is ready for calls.
pub(super) const START_TIME: Duration = Duration::from_secs(20);

/// Linear memory of a guest, each memory, unless its manifest asks for another size.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;
/// The most a manifest can ask for.
pub(super) const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Time the guest itself may compute in one call, unless its manifest asks for another.
pub(super) const GUEST_TIME: Duration = Duration::from_secs(5);
/// The most a manifest can ask for.
pub(super) const GUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Time the host may take for all requests of one call together.
pub(super) const HOST_TIME: Duration = Duration::from_secs(60);

/// How old a call may get, the host's time not counted: room to sleep, and for the checks that share the thread.
pub(super) fn wall_time(guest_time: Duration) -> Duration {
    guest_time * 3
}
/// How long the host waits for a runner beyond both before it kills it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A core instance is one module of the component; 64 is what CPython's 38 leaves room for.
pub(super) const INSTANCES: usize = 64;
/// Linear memories of all instances.
pub(super) const MEMORIES: usize = 4;
/// Tables of all instances.
pub(super) const TABLES: usize = 8;
/// Elements of one table; the engine reserves host memory for each.
pub(super) const TABLE_ELEMENTS: usize = 20_000;
/// Bytes a guest may have copied to the host in one call, roughly.
pub(super) const HOSTCALL_FUEL: usize = 2 << 20;
/// Handles a guest may hold.
pub(super) const HANDLES: usize = 1_000;
/// What is kept of a guest's stderr; its end, since a panic is the last thing written.
pub(super) const STDERR_BYTES: usize = 1 << 10;
/// Bytes of one request for random data.
pub(super) const RANDOM_BYTES: u64 = 64 << 10;

/// Requests to the host in one call.
pub(super) const REQUESTS: u32 = 10_000;
/// Log lines of one call.
pub(super) const LOG_LINES: u32 = 1_000;
/// Log bytes of one call.
pub(super) const LOG_BYTES: usize = 64 << 10;
/// One log line.
pub(super) const LOG_LINE_BYTES: usize = 4 << 10;

/// Checks of one plugin.
pub(super) const CHECKS: usize = 256;
/// Findings of one report.
pub(super) const FINDINGS: usize = 256;
/// Entries of one evidence list.
pub(super) const EVIDENCE: usize = 64;
/// A message, remedy, reason, or name or value of evidence.
pub(super) const TEXT_BYTES: usize = 4 << 10;
/// All texts of a report together.
pub(super) const REPORT_BYTES: usize = 256 << 10;

/// Settings of a plugin as JSON.
pub(super) const SETTINGS_BYTES: usize = 256 << 10;
/// Lines of grants that a plugin is told of.
pub(super) const GRANT_LINES: usize = 1024;
/// Content of a file a plugin may read when its grant names no size.
pub(super) const FILE_BYTES: u64 = 64 << 10;
/// The most a grant can name.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of stdout and stderr each when a command's grant names no size.
pub(super) const OUTPUT_BYTES: u64 = 64 << 10;
/// The most a grant can name.
pub(super) const OUTPUT_BYTES_MAX: u64 = 512 << 10;
/// How long a command runs when its grant names no time.
pub(super) const COMMAND_TIME: Duration = Duration::from_secs(10);
/// The most a grant can name.
pub(super) const COMMAND_TIME_MAX: Duration = Duration::from_secs(50);

/// Body of a request when its grant names no size.
pub(super) const HTTP_BODY: u64 = 64 << 10;
/// The most a grant can name.
pub(super) const HTTP_BODY_MAX: u64 = 1 << 20;
/// Body of an answer when its grant names no size.
pub(super) const HTTP_RESPONSE: u64 = 256 << 10;
/// The most a grant can name.
pub(super) const HTTP_RESPONSE_MAX: u64 = 2 << 20;

/// Headers of a request.
pub(super) const HTTP_HEADERS: usize = 64;
/// Value of one.
pub(super) const HTTP_HEADER_VALUE: usize = 8 << 10;
/// Names and values of all.
pub(super) const HTTP_HEADER_BYTES: usize = 32 << 10;
/// Headers of an answer.
pub(super) const HTTP_ANSWER_HEADERS: usize = 100;
/// The head of an answer.
pub(super) const HTTP_ANSWER_HEADER_BYTES: usize = 64 << 10;
/// How long a request takes when the guest names no time.
pub(super) const HTTP_TIME: Duration = Duration::from_secs(10);
/// The most it can name.
pub(super) const HTTP_TIME_MAX: Duration = Duration::from_secs(50);
/// How long a probe takes.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(5);
/// Addresses that a look-up shows.
pub(super) const PROBE_ADDRESSES: usize = 64;
/// Certificates that a handshake shows.
pub(super) const PEER_CERTIFICATES: usize = 16;
/// All of them together.
pub(super) const PEER_BYTES: usize = 128 << 10;
/// A secret.
pub(super) const SECRET_BYTES: usize = 16 << 10;

/// Largest frame from a runner. A report of [`REPORT_BYTES`] may grow sixfold when JSON escapes it.
pub(super) const FRAME_FROM_RUNNER: usize = 2 << 20;
/// Largest frame to a runner: a file of [`FILE_BYTES_MAX`] or two outputs, in base64, and room.
pub(super) const FRAME_TO_RUNNER: usize = 4 << 20;
