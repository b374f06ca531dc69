"""fastapi-users with tokens in a SQLite database, through SQLAlchemy: a session for each request, as documented."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTableUUID
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from tests.benchmarks.apps import SECRET, bare, bearer
from tests.benchmarks.harness import App
from tests.benchmarks.stores import IN_ROTATION


class _Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, _Base):
    pass


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, _Base):
    pass


class _Manager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'users.db'}")
    stack.push_async_callback(engine.dispose)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(_Base.metadata.create_all)
    tokens = []
    async with sessions() as session:
        for number in range(IN_ROTATION):
            user = User(id=uuid.uuid4(), email=f"{number}@example.com", hashed_password="none")
            session.add(user)
            await session.flush()
            strategy = DatabaseStrategy(SQLAlchemyAccessTokenDatabase(session, AccessToken), lifetime_seconds=86_400)
            tokens.append(await strategy.write_token(user))
        await session.commit()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with sessions() as session:
            manager = _Manager(SQLAlchemyUserDatabase(session, User))
            strategy = DatabaseStrategy(SQLAlchemyAccessTokenDatabase(session, AccessToken), lifetime_seconds=86_400)
            user = await strategy.read_token(bearer(scope), manager)
        if user is None:
            raise RuntimeError("a good token was refused")
        await bare({**scope, "actor": {"id": str(user.id)}}, receive, send)

    return app, tokens
