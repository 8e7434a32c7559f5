//! What proves that native code is what the store once wrote: an authentication code by the store's key, in pieces, so that
//! little of the code is in memory at once.
//!
//! AES-256-GCM, which here only authenticates: it is many times as fast as a hash of such sizes. Each piece is bound to
//! its place, to the length of the whole and to what the code is for.

use std::io::{self, Read};
use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Code of this length has one proof.
const PIECE_BYTES: usize = 256 << 10;
/// A nonce and a tag.
const PROOF_BYTES: usize = NONCE_LEN + 16;

/// Length of the proof of that much code; above it none is read.
pub(super) fn length(code_bytes: u64) -> u64 {
    code_bytes.div_ceil(PIECE_BYTES as u64) * PROOF_BYTES as u64
}

/// Proves code of that length, made for something.
///
/// # Errors
///
/// Those of reading it.
pub(super) fn prove(key: &[u8; KEY_BYTES], made_for: &str, mut code: impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let key = ready(key);
    let (mut proof, mut piece) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < bytes {
        begin(&mut piece, made_for, at, bytes);
        let wanted = (bytes - at).min(PIECE_BYTES as u64);
        if code.by_ref().take(wanted).read_to_end(&mut piece)? as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).expect("the kernel has randomness");
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&piece), &mut [])
            .expect("a piece is shorter than the cipher's bound");
        proof.extend_from_slice(&nonce);
        proof.extend_from_slice(tag.as_ref());
        at += wanted;
    }
    Ok(proof)
}

/// Whether a proof is of this code, of that length, made for this. `read_at` fills a buffer from a place in the code.
///
/// Two threads share the pieces: code of a language with an interpreter is tens of megabytes, and a run waits for this.
///
/// # Errors
///
/// Those of reading it; an end before that length, too.
pub(super) fn verify(
    key: &[u8; KEY_BYTES],
    made_for: &str,
    read_at: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync,
    bytes: u64,
    proof: &[u8],
) -> io::Result<bool> {
    if proof.len() as u64 != length(bytes) {
        return Ok(false);
    }
    let key = ready(key);
    let pieces = proof.len() / PROOF_BYTES;
    let are_proved = |numbers: Range<usize>| -> io::Result<bool> {
        let mut piece = Vec::new();
        for number in numbers {
            let at = number as u64 * PIECE_BYTES as u64;
            begin(&mut piece, made_for, at, bytes);
            let head = piece.len();
            piece.resize(head + (bytes - at).min(PIECE_BYTES as u64) as usize, 0);
            read_at(&mut piece[head..], at)?;
            let (nonce, tag) = proof[number * PROOF_BYTES..][..PROOF_BYTES].split_at(NONCE_LEN);
            let nonce = Nonce::try_assume_unique_for_key(nonce).expect("its length was checked");
            if key.open_in_place(nonce, Aad::from(&piece), &mut tag.to_vec()).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let half = pieces / 2;
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new().spawn_scoped(scope, || are_proved(0..half));
        let own = are_proved(half..pieces)?;
        // Where there are no more threads, this one does it all.
        let other = other.map_or_else(|_| are_proved(0..half), |it| it.join().expect("it does not panic"))?;
        Ok(own && other)
    })
}

fn ready(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("its length is that of a key"))
}

/// What stands before a piece where it is authenticated.
fn begin(piece: &mut Vec<u8>, made_for: &str, at: u64, bytes: u64) {
    piece.clear();
    piece.extend_from_slice(format!("{made_for} {at}/{bytes} ").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = [1; KEY_BYTES];

    fn is_proved(made_for: &str, code: &[u8], proof: &[u8]) -> bool {
        let read_at = |buffer: &mut [u8], at: u64| {
            buffer.copy_from_slice(&code[at as usize..][..buffer.len()]);
            Ok(())
        };
        verify(&KEY, made_for, read_at, code.len() as u64, proof).unwrap()
    }

    #[test]
    fn a_change_anywhere_is_seen() {
        let mut code: Vec<u8> = (0..PIECE_BYTES * 2 + 10).map(|it| it.to_le_bytes()[1]).collect();
        let mut proof = prove(&KEY, "it", code.as_slice(), code.len() as u64).unwrap();
        assert!(is_proved("it", &code, &proof));
        assert!(!is_proved("another", &code, &proof));
        for at in [0, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES * 2, code.len() - 1] {
            code[at] ^= 1;
            assert!(!is_proved("it", &code, &proof), "a change at {at} went unseen");
            code[at] ^= 1;
        }
        for at in [0, NONCE_LEN, proof.len() - 1] {
            proof[at] ^= 1;
            assert!(!is_proved("it", &code, &proof), "a change of the proof at {at} went unseen");
            proof[at] ^= 1;
        }
        assert!(is_proved("it", &code, &proof));
    }

    #[test]
    fn pieces_cannot_be_dropped_or_moved() {
        let code = [[1; PIECE_BYTES], [2; PIECE_BYTES]].concat();
        let proof = prove(&KEY, "it", code.as_slice(), code.len() as u64).unwrap();
        let half = |bytes: &[u8]| [&bytes[bytes.len() / 2..], &bytes[..bytes.len() / 2]].concat();
        assert!(!is_proved("it", &half(&code), &half(&proof)), "its halves changed places");
        assert!(!is_proved("it", &code[..PIECE_BYTES], &proof[..PROOF_BYTES]), "it was cut off");
    }
}
