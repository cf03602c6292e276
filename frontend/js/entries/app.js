/* What every page loads. Behaviours listen on the document, so they also serve what htmx brings in later. */

import "../behaviours/requests.js";
import "../behaviours/chart.js";
import "../behaviours/copy.js";
import "../behaviours/dialog.js";
import "../behaviours/forms.js";
import "../behaviours/menu.js";
import "../behaviours/messages.js";
import "../behaviours/odometer.js";
import "../behaviours/rail.js";
import "../behaviours/signing_out.js";
import "../behaviours/tabs.js";
import "../behaviours/time.js";
