"""What tokens promise on every database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ml_backend.callers import Role
from ml_backend.errors import BadRequest, Conflict, NotFound
from ml_backend.store import tokens as tokens_module
from ml_backend.store.database import Database
from ml_backend.store.schema import TokenRow
from ml_backend.store.tokens import USED_EVERY_S, Tokens
from tests.fakes import ManualClock


class TestTokens:
    def test_a_token_is_known_by_its_text_and_by_nothing_else(self, database: Database) -> None:
        tokens = Tokens(database, clock=ManualClock(100.0))
        made, text = tokens.create("anna", Role.TRAIN)
        _, others = tokens.create("bert", Role.ADMIN)

        found = tokens.authenticate(text)

        assert text.startswith(f"mlb_{made.id}_")
        assert found is not None
        assert (found.name, found.role, found.created_at) == ("anna", Role.TRAIN, 100.0)
        mark, token_id, secret = text.split("_")
        for wrong in (
            "",
            "mlb",
            f"{mark}_{token_id}_",
            f"{mark}_{token_id}_{'0' * 64}",
            f"{mark}_{'0' * 16}_{secret}",
            f"{mark}_{token_id}_{others.split('_')[2]}",
            f"{mark}_{token_id}_{secret.upper()}",
            f" {text}",
            f"{text}\n",
            f"{text}0",
            made.digest,
            f"{mark}_{token_id}_{made.digest}",
            "mlb_" + "\0" * 16 + "_" + secret,
            "ü" * 85,
            "x" * 100_000,
        ):
            assert tokens.authenticate(wrong) is None, wrong

    def test_the_secret_is_kept_nowhere(self, database: Database) -> None:
        tokens = Tokens(database)
        made, text = tokens.create("anna", Role.PREDICT)
        secret = text.split("_")[2]

        with database.read() as session:
            row = session.execute(sa.select(TokenRow.__table__)).one()

        assert secret not in str(tuple(row))
        assert secret not in repr(made)
        assert made.digest not in repr(made)

    def test_a_revoked_token_opens_nothing_and_its_name_is_free(self, database: Database) -> None:
        clock = ManualClock(50.0)
        tokens = Tokens(database, clock=clock)
        _, old = tokens.create("anna", Role.ADMIN)
        clock.forward(10)

        revoked = tokens.revoke("anna")
        _, new = tokens.create("anna", Role.PREDICT)

        assert revoked.revoked_at == 60.0
        assert tokens.authenticate(old) is None
        known = tokens.authenticate(new)
        assert known is not None
        assert known.role is Role.PREDICT
        assert [(token.name, token.revoked_at) for token in tokens.all()] == [
            ("anna", None),
            ("anna", 60.0),
        ]

    def test_there_is_any_only_while_one_is_in_use(self, database: Database) -> None:
        tokens = Tokens(database)
        seen = [tokens.has_any()]
        tokens.create("anna", Role.PREDICT)
        seen.append(tokens.has_any())
        tokens.revoke("anna")
        seen.append(tokens.has_any())

        assert seen == [False, True, False]

    def test_a_name_is_one_tokens_only(self, database: Database) -> None:
        tokens = Tokens(database)
        tokens.create("anna", Role.PREDICT)

        with pytest.raises(Conflict, match="revoke it first"):
            tokens.create("anna", Role.ADMIN)

        assert len(tokens.all()) == 1

    @pytest.mark.parametrize("name", ["", " ", "-x", "a b", "a" * 65, "a/b", "ä", "a\n", "a:b"])
    def test_a_name_that_cannot_be_shown_or_typed_is_refused(
        self, database: Database, name: str
    ) -> None:
        tokens = Tokens(database)

        with pytest.raises(BadRequest, match="letters, digits"):
            tokens.create(name, Role.PREDICT)

        assert tokens.all() == []

    @pytest.mark.parametrize("name", ["nobody", "anna"])
    def test_what_is_not_in_use_cannot_be_revoked(self, database: Database, name: str) -> None:
        tokens = Tokens(database)
        tokens.create("anna", Role.PREDICT)
        tokens.revoke("anna")

        with pytest.raises(NotFound, match="tokens list"):
            tokens.revoke(name)

    def test_use_is_noted_once_a_minute(self, database: Database) -> None:
        clock = ManualClock(1000.0)
        tokens = Tokens(database, clock=clock)
        _, text = tokens.create("anna", Role.PREDICT)
        used = [tokens.all()[0].last_used_at]
        for wait_s in (0.0, USED_EVERY_S - 1, 1.0):
            clock.forward(wait_s)
            assert tokens.authenticate(text) is not None
            used.append(tokens.all()[0].last_used_at)

        assert used == [None, 1000.0, 1000.0, 1000.0 + USED_EVERY_S]

    def test_a_wrong_secret_is_no_use(self, database: Database) -> None:
        tokens = Tokens(database)
        made, _ = tokens.create("anna", Role.PREDICT)

        tokens.authenticate(f"mlb_{made.id}_{'0' * 64}")

        assert tokens.all()[0].last_used_at is None

    def test_an_unknown_id_costs_as_much_as_a_wrong_secret(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokens = Tokens(database)
        made, _ = tokens.create("anna", Role.PREDICT)
        compared: list[tuple[int, int]] = []
        compare = tokens_module.hmac.compare_digest

        def note(given: str, expected: str) -> bool:
            compared.append((len(given), len(expected)))
            return compare(given, expected)

        monkeypatch.setattr(tokens_module.hmac, "compare_digest", note)
        for token_id in (made.id, "0" * 16, "no id"):
            assert tokens.authenticate(f"mlb_{token_id}_{'0' * 64}") is None

        assert compared == [(64, 64)] * 3

    def test_of_several_that_want_a_name_at_once_one_gets_it(self, database: Database) -> None:
        start = threading.Barrier(6)

        def create() -> str | None:
            tokens = Tokens(database)
            start.wait()
            try:
                return tokens.create("anna", Role.PREDICT)[1]
            except Conflict:
                return None

        with ThreadPoolExecutor(6) as pool:
            texts = [done.result() for done in [pool.submit(create) for _ in range(6)]]

        (text,) = [text for text in texts if text is not None]
        assert Tokens(database).authenticate(text) is not None
