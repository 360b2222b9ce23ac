"""Is a store whole? Structure first, contents on request, healing from another copy."""

from castfs.verify.report import BadBlob, Hurt, VerifyOptions, VerifyResult
from castfs.verify.run import verify_store

__all__ = ["BadBlob", "Hurt", "VerifyOptions", "VerifyResult", "verify_store"]
