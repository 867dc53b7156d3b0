"""Consent records in the forms that other systems read: FHIR, ODRL, DUO codes, Kantara, a page to print."""
