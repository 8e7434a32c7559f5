//! What proves that native code is what the store once wrote: an authentication code by the store's key, in pieces, so that
//! little of the code is in memory at once.
//!
//! AES-256-GCM, which here only authenticates: it is many times as fast as a hash of such sizes. Each piece is bound to
//! its place, to the length of the whole and to what the code is for.

use std::io::{self, Read};

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
pub(super) fn prove(key: &[u8; KEY_BYTES], made_for: &str, code: impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let key = ready(key);
    let mut proof = Vec::new();
    pieces(made_for, code, bytes, |piece| {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).expect("the kernel has randomness");
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(piece), &mut [])
            .expect("a piece is shorter than the cipher's bound");
        proof.extend_from_slice(&nonce);
        proof.extend_from_slice(tag.as_ref());
        true
    })?;
    Ok(proof)
}

/// Whether a proof is of this code, of that length, made for this.
///
/// # Errors
///
/// Those of reading it; an end before that length, too.
pub(super) fn verify(
    key: &[u8; KEY_BYTES],
    made_for: &str,
    code: impl Read,
    bytes: u64,
    proof: &[u8],
) -> io::Result<bool> {
    if proof.len() as u64 != length(bytes) {
        return Ok(false);
    }
    let key = ready(key);
    let mut proofs = proof.chunks_exact(PROOF_BYTES);
    pieces(made_for, code, bytes, |piece| {
        proofs.next().is_some_and(|proof| {
            let (nonce, tag) = proof.split_at(NONCE_LEN);
            let nonce = Nonce::try_assume_unique_for_key(nonce).expect("its length was checked");
            key.open_in_place(nonce, Aad::from(piece), &mut tag.to_vec()).is_ok()
        })
    })
}

fn ready(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("its length is that of a key"))
}

/// Hands out what is authenticated, piece by piece, for as long as that is answered with yes. Tells whether it always was.
fn pieces(made_for: &str, mut code: impl Read, bytes: u64, mut on: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut piece = Vec::new();
    let mut at = 0;
    while at < bytes {
        piece.clear();
        piece.extend_from_slice(format!("{made_for} {at}/{bytes} ").as_bytes());
        let wanted = (bytes - at).min(PIECE_BYTES as u64);
        if code.by_ref().take(wanted).read_to_end(&mut piece)? as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !on(&piece) {
            return Ok(false);
        }
        at += wanted;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = [1; KEY_BYTES];

    fn is_proved(made_for: &str, code: &[u8], proof: &[u8]) -> bool {
        verify(&KEY, made_for, code, code.len() as u64, proof).unwrap()
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
