//! `mortise.lock`, as somebody left it.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use mortise::plugin::lock::Lock;
use mortise_fuzz::verify_printed;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let Ok(lock) = Lock::parse(text) else { return Corpus::Keep };
    let written = serde_saphyr::to_string(&lock).expect("`Lock::save` writes any lock");
    assert_eq!(Lock::parse(&written).as_ref(), Ok(&lock), "{written}");
    for locked in &lock.plugins {
        assert_eq!(lock.find(&locked.name), Some(locked), "two plugins share a name");
        verify_printed(&locked.granted().expect("`Lock::parse` looked at each line"));
        if let Ok(Some(key)) = locked.public_key() {
            assert_eq!(Some(key.fingerprint()), locked.signer, "the key is not the signer's");
        }
        let digests: Vec<_> = std::iter::once(&locked.digest).chain(&locked.manifest).collect();
        let refused = lock.verify_not_revoked(&locked.name, &digests, locked.signer.as_ref()).is_err();
        let revoked = digests.iter().copied().chain(&locked.signer).any(|digest| lock.revoked.contains(digest));
        assert_eq!(refused, revoked);
    }
    Corpus::Keep
});
