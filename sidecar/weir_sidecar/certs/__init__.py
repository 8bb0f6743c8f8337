"""Certificates: the CA, leaves that mirror an upstream's names, merged bundles and trust stores."""
