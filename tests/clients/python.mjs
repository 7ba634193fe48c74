// The Python whose environment has the Python client: tests/clients/python-environment makes it.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const PYTHON = process.env.ROOMCAST_PYTHON ?? fileURLToPath(new URL('../../target/tools/python-client/bin/python', import.meta.url));

if (!existsSync(PYTHON)) throw new Error(`there is no ${PYTHON}; run tests/clients/python-environment, or name a Python by ROOMCAST_PYTHON`);
