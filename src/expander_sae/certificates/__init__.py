"""Certificates: what is proved about a dictionary, what is refuted, and what is only measured."""

from expander_sae.certificates.certify import CertifyConfig, certify
from expander_sae.certificates.statements import STATUSES, Certificate, Statement, Status, as_text

__all__ = ["STATUSES", "Certificate", "CertifyConfig", "Statement", "Status", "as_text", "certify"]
