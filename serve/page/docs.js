// The routes of the service, drawn from its OpenAPI document.
"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#routes",
  deepLinking: true,
  validatorUrl: null, // else the document would be sent to a server of the script's authors
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
