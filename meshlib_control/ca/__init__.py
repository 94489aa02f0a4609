"""The certificate authority: keys, certificates, tokens, rotation."""
