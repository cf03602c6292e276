// Pages of accounts: passkeys.

import { start } from "../accounts/passkey_forms.js";

start();
