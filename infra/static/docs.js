// Shows the OpenAPI document that the page names.
const target = document.getElementById("swagger-ui");
window.SwaggerUIBundle({ url: target.dataset.document, domNode: target, deepLinking: true });
